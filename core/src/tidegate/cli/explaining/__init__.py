"""`tidegate explain`: what the pipeline does with one request, and why."""
