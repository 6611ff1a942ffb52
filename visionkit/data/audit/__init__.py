"""What can be known of a data set before anything is trained: its pictures, copies in it, doubtful labels."""
