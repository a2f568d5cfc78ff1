"""Every file that the program reads, as a sample and the function that reads it."""
