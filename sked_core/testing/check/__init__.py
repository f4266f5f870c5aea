"""What ``sked plugins check`` finds out of an installed package: its packaging, and the kits on its samples."""
