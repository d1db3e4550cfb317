"""Eight people's smartwatches learn to tell shoulder exercises apart, and no recording leaves its watch."""
