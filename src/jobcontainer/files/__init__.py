"""What lies on disk: the file format, who may be loaded, objects as files, and the job's folder."""
