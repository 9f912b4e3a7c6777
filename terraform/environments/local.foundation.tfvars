alarm_emails  = ["me@example.com"] # no message leaves this machine
force_destroy = true
