"""The network, its loss and the schedule of the KLD weight: plain torch, no Lightning."""
