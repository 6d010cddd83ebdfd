from schleuse.cli import main

main()
