"""These tests run in the packages made from here: see tests/packaging/test_new_plugin.py."""

collect_ignore_glob = ["*"]
