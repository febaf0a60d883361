"""Roads: a mask or scores in, a network out."""
