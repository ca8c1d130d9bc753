"""The product: open a suspect safely, calibrate on reference models, judge, guard, repair."""
