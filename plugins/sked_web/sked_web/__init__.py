"""The API of Sked over HTTP, and the page for people that is made of it."""
