"""What a run shows of itself: the pictures in its workdir."""
