"""Best-fit placement: fills hosts up, so that as few as possible are used."""
