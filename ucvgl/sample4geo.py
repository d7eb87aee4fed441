"""`accelerate launch -m ucvgl.sample4geo`: the trainings of notebook 05, by several processes, into the run cache."""

from ucvgl.launch import main, sample4geo

if __name__ == "__main__":
    main(sample4geo)
