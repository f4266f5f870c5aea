"""What the HTTP servers of Sked share: who may do what, TLS, limits, and a server that ends when asked."""
