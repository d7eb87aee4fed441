"""The first edition's studies and showcases; each goes when its notebook is rewritten, so nothing new stands on them."""
