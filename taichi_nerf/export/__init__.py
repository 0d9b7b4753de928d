"""What leaves the program for people to look at: pictures of scenes."""
