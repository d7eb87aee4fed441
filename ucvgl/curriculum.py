"""`accelerate launch -m ucvgl.curriculum`: the curriculum of notebook 04, by several processes, into the run cache."""

from ucvgl.launch import curriculum, main

if __name__ == "__main__":
    main(curriculum)
