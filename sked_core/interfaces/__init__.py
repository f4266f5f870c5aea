"""The ports that plugins implement, and the hooks by which Sked finds them."""
