"""`accelerate launch -m ucvgl.pretrain`: the cold start of notebooks 02 and 03, by several processes, into the run cache."""

from ucvgl.launch import main, pretrain

if __name__ == "__main__":
    main(pretrain)
