"""Label formats: one file each, from files to items whose labels are read when asked for."""
