"""What people and programs can look at and do in a store: the command line, the API and the page are made of it.

Nothing in here prints, asks or waits for a terminal. Results are data; what one should know besides them is a notice.
"""
