"""What a store holds, as people want to see it: each module is one thing that is looked at. Nothing is written."""
