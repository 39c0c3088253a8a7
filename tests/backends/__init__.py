"""Stores as they really lie there: folders, links, modes, ACLs."""
