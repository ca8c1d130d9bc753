"""gymnasium environments, imported when a control task is first trained, and rollouts in them."""
