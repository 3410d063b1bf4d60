"""The modes of generate.py, from the command line."""
