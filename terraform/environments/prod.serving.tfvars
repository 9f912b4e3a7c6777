# One instance in ten takes the new model first, and the alarms decide.
data_capture_percent = 1
release              = { strategy = "canary" }
scaling              = { min_capacity = 2, max_capacity = 8 }
