"""Nouns: pure data, its keys in the store, its JSON, and the rules that manifests are held to."""
