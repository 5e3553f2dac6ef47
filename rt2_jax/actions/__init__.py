"""Physical actions and their 256 bins: spaces, binning, dataset cards. numpy only."""
