"""The paper's figures, one file for each: it measures, writes result lines and draws from them."""
