"""What can be wrong with a machine, each as a small value that looks, names itself and says the remedy."""
