"""Do the engines compute what torch computes, and how fast."""
