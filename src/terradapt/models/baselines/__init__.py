"""Classic models as yardsticks, one file per paper."""
