"""Reading files that someone else wrote: what they declare is compared with what they are before it is believed."""
