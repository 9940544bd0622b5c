"""What any engine on the fabric is made of: multiplier arrays, requantisation, and the streams between them."""
