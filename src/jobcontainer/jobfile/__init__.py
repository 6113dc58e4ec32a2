"""The signed ``*.job`` file: its format, signing, writing and reading, and the Serializer."""
