"""`accelerate launch -m ucvgl.vg_ssl`: the trainings of notebook 06, by several processes, into the run cache."""

from ucvgl.launch import main, vg_ssl

if __name__ == "__main__":
    main(vg_ssl)
