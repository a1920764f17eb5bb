"""What every module in `modules/` calls: `reconcile` for the whole host, `family` for a part of it. No Ansible in here.

Each function takes a module's parameters and whether this is only a check, and returns the module's result.
"""
