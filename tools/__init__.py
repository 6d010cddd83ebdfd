"""Tools of the people who work on the project; nothing in `src` knows them."""
