"""`moshivis bench`: how long a frame takes, stage by stage, against what memory bandwidth allows."""
