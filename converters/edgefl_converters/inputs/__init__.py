"""What users name as a model: files of every age, folders, modules; loading.py is the way in."""
