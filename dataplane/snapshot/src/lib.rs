//! Records of the view a rack has, and of its observations; one codec.
