"""sim: the laboratory. Build small networks, break them, roll them back, and say whether they are reachable again."""
