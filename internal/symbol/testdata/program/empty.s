// Allows the declaration of a function without a body.
