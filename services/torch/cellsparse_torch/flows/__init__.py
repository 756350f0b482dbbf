"""What both Cellposes train on: flows of sparsely labelled cells, crops of them, and the loss."""
