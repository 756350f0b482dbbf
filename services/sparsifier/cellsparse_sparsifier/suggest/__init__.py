"""Which cells to mark next: candidates of images, how they differ, and a choice among them with a reason each."""
