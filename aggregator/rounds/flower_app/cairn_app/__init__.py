"""The app that Flower is told to run: names what is installed, so its digest is constant."""
