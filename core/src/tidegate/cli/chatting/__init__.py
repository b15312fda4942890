"""What `tidegate chat` does: finds a gateway, talks to it, shows what it says."""
