"""The rules of RFC 9111 and its companions, sans I/O: values in, decisions out."""
