"""gymnasium environments. They need gymnasium, so nothing imports them before a control task is trained."""
