"""The store on disk: the job folder, its record, events, progress and result."""
